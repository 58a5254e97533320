"""A small HTTP server around a token classifier, with a page to try it: ``minitl serve``.

``batching`` puts concurrent requests together for the one thread that owns the model; ``application`` is the web
application, which knows HTTP and no sockets; ``server`` runs it with waitress; ``page.html`` is what a browser gets.
"""
