"""Records become tables and figures. No torch."""
