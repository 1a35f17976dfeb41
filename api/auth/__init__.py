"""Who is calling: `base` says what a caller is, each other module is one way to find out."""
