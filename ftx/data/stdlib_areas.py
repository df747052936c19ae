"""Which area of work each module of the standard library belongs to.

A module is named by its first part, so a package stands with everything below it. What is in several areas at once is
left out: threads and processes, logging, files and paths, queues. ``asyncio`` is with the network because the library
reference puts it in the networking chapter. Names that only some Python versions have do no harm in the others: the
table covers 3.11 to 3.14, where pure-Python code moves now and then to a module of its own (``_pydatetime``).
"""

_INTERFACE = """
    _colorize _pyrepl argparse cmd curses getopt getpass gettext optparse pty rlcompleter tkinter tty turtle
"""

_NETWORK = """
    asynchat asyncio asyncore cgi cgitb email ftplib html http imaplib ipaddress mailbox mailcap mimetypes netrc nntplib
    nturl2path poplib selectors smtpd smtplib socket socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc
"""

_DATA = """
    _collections_abc _compression _pydatetime _pydecimal _strptime base64 bisect bz2 calendar codecs collections
    compression configparser copy csv datetime dbm decimal difflib encodings enum fractions graphlib gzip hashlib heapq
    hmac json lzma numbers pickle plistlib random re secrets shelve sqlite3 statistics string tarfile textwrap tomllib
    uuid xml zipfile zoneinfo
"""

_CODE = """
    _py_abc _py_warnings abc annotationlib ast bdb cProfile code codeop contextlib dataclasses dis doctest functools
    importlib inspect modulefinder pdb pickletools pkgutil platform profile pstats pyclbr pydoc runpy site symtable
    sysconfig timeit tokenize trace traceback tracemalloc types typing unittest venv warnings weakref zipimport
"""

_MODULES = {"interface": _INTERFACE, "network": _NETWORK, "data": _DATA, "code": _CODE}

AREAS: tuple[str, ...] = tuple(_MODULES)
AREA_OF: dict[str, str] = {module: area for area, modules in _MODULES.items() for module in modules.split()}
