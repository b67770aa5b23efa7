"""What can be decided without a database; the contract suite of the project runs the rest."""
