"""Commands about the states of agents over time, and runs that go on from one of them."""
