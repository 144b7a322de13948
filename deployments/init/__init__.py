"""`harbor-ha init`: asks for what a site file needs, tests each answer, and writes it with its keys and passwords."""
