"""All rows that are servers."""

from . import redis
from .memcached import Memcached
from .nginx import Nginx
from .postgres import Postgres


def everything():
    return [*redis.everything(), Memcached(), Nginx(), Postgres()]
