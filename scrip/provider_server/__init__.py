"""A server that answers as Stripe and Asaas do, for tests and for trying out: nothing is charged.

It speaks the parts of both interfaces that Scrip uses, as their documents tell them, keeps all in
memory, and sends signed webhooks. Whoever works in the same process can look at its books.
"""
