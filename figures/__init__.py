"""Tables, figures and reports from records alone. Nothing here imports torch or touches a
network.
"""
