"""Sessions in Redis: standalone, Sentinel or Cluster."""
