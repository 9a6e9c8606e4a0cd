"""The nano task suite: generated questions with a difficulty gradient and verified traces."""
