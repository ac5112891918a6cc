"""Who is compared: the same job done by Orrery, by a bare dramatiq actor, and as people first write it.

Each module has two halves: a `Contender` for the leader of the round, and `staff`, which makes the `Worker`
of a worker process. A worker process imports its own contender's module and no other.
"""
