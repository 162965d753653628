"""The Model Context Protocol: workflows as tools for other agents."""
