"""Scale, mask, softmax and dropout of rows."""
