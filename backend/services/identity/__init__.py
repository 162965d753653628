"""Who makes a request, and what they may do: sessions, service tokens, and the accounts behind them."""
