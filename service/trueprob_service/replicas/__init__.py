"""Several processes that serve one port, and the small parent process that keeps them running.

The parent (`supervisor`) binds the sockets (`listening`), loads no model and answers no request.
Each replica (`replica`) is the whole service in a spawned process. They share only the database.
"""
