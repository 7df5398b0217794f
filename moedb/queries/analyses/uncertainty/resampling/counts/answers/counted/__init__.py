"""Queries of counted views, worked out by numpy: quicker than their SQL over all draws at once."""
