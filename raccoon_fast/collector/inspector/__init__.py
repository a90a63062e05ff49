"""The inspector: shows received events to browsers and programs, beside the server's own paths.

It keeps a limited number of events (`Journal`), decodes their data (`EventDecoder`), and answers
under /inspect (`Inspector`). A collector without an inspector never loads this package.
"""
