"""The dashboard `/ui/`: what the endpoints and the verbs say, as pages that the server makes.

Each page is whole without JavaScript, and shows the state as of its load. Nothing here asks the ledger in a
way of its own, and nothing changes state but `letters` and the visitor's own cookie (`visitor`).
"""
