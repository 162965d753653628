"""Tools of built-in agents: what they may call, who approves it, and how no call is repeated unknowingly."""
