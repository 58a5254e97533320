"""Log-softmax, negative log-likelihood, mean over scored rows."""
