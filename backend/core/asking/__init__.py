"""What agents ask people: questions, answers, and the terms on which they are given."""
