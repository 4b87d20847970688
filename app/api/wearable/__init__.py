"""What the wearable's mobile app speaks: its stream of sound, its conversations, its first screen."""
