"""Rules of notifications: events, thresholds, signatures and delivery back-off."""
