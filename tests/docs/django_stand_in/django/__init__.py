"""As much of Django as the quickstart uses, for machines without it; requests know their environ as Django's do."""
