"""What an experiment is, as data: specs, records, the registry, schedules and traces, errors.

Standard library only, so that figures may import it; imports nothing of the other rooms.
"""
