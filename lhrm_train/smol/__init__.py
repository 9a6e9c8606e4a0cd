"""lhrm-smol: its questions, its everyday prompts, and how its checkpoint is made from a base and a delta.

Nothing else of the project imports this package.
"""
