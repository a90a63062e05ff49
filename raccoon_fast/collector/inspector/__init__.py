"""The inspector: what comes in, to look at in a browser or by a program, beside the server's own paths.

It remembers a bounded part of what passes (`Journal`), shows an event's data decoded (`EventDecoder`), and answers
under /inspect (`Inspector`). A collector without it never loads this package.
"""
