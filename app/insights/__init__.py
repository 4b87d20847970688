"""What is made of a conversation when it is over."""
