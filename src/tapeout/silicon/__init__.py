"""A described chip as silicon: area, transistors, power, yield, cost, export control, cost of ownership.

Takes a chip (a description, or another vendor's from the catalog) and technology figures with sources; gives
`Estimate`s. Runs nothing: activity counts come from whoever ran the workload.
"""
