"""OpenAI-compatible gateway that serves an LHRM on vLLM."""
