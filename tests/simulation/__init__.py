"""Deterministic simulation of whole histories around the real flows, rules, records and guards: docs/simulation.md."""
