"""Questions with verified step-by-step traces in plain language, one family of kinds per file."""
