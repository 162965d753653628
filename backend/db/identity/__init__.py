"""What is stored about sessions, sign-ins and service tokens."""
