"""Parts that are discovered, not given: features, factors, and the losses of Hung et al. 2019."""
