"""The drill: kills training at random moments and compares what it ends with, bit for bit."""
