"""The classified post-filter after synthesis."""
