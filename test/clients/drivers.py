# Loops over a page of users, and the good forms of them, by psycopg2 (simple
# protocol, literals) and psycopg 3 (extended protocol with and without named
# statements, pipeline mode).  Told what to do by lines of JSON, see Clients.pm.
import json
import sys
import threading
from random import Random

import psycopg
import psycopg2
import psycopg2.extras

PAGE = "SELECT id, name FROM users WHERE id > %s ORDER BY id LIMIT 25"
ORDERS = "SELECT id, total_cents FROM orders WHERE user_id = %s"
INSERT = "INSERT INTO events (user_id, note) VALUES (%s, %s)"


class Psycopg2:
    def __init__(self, what):
        # what the environment does not say
        options = {k: what[k] for k in ("host", "port", "dbname") if k in what}
        self.connection = psycopg2.connect(application_name=what["application_name"], **options)
        self.connection.autocommit = what.get("autocommit", True)

    def rows(self, sql, *parameters):
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall()

    def run(self, sql, *parameters):
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters)

    def many(self, sql, rows):
        with self.connection.cursor() as cursor:
            cursor.executemany(sql, rows)

    def each(self, sql, keys):
        return [self.rows(sql, key) for key in keys]

    def end(self):
        if not self.connection.autocommit:
            self.connection.commit()

    def close(self):
        self.end()
        self.connection.close()


class Psycopg3(Psycopg2):
    def __init__(self, what):
        self.prepare = what["style"] == "named"
        self.pipelined = what["style"] == "pipeline"
        options = {k: what[k] for k in ("host", "port", "dbname") if k in what}
        self.connection = psycopg.connect(
            application_name=what["application_name"], autocommit=what.get("autocommit", True), **options)
        if not self.prepare:
            self.connection.prepare_threshold = None

    def rows(self, sql, *parameters):
        return self.connection.execute(sql, parameters, prepare=self.prepare).fetchall()

    def run(self, sql, *parameters):
        self.connection.execute(sql, parameters, prepare=self.prepare)

    def each(self, sql, keys):
        if not self.pipelined:
            return super().each(sql, keys)
        with self.connection.pipeline():
            cursors = [self.connection.execute(sql, (key,)) for key in keys]
        return [cursor.fetchall() for cursor in cursors]


def loop(db):
    for page in range(3):
        ids = [user[0] for user in db.rows(PAGE, page * 25)]
        db.each(ORDERS, ids)
        db.end()


def good(db):
    for page in range(3):
        ids = [user[0] for user in db.rows(PAGE, page * 25)]
        db.rows("SELECT user_id, id, total_cents FROM orders WHERE user_id = ANY (%s)", ids)
        db.end()


def joins(db):
    for page in range(15):
        db.rows("SELECT u.id, u.name, o.id, o.total_cents FROM users u LEFT JOIN orders o ON o.user_id = u.id"
                " WHERE u.id BETWEEN %s AND %s ORDER BY u.id", page * 10, page * 10 + 9)
        db.end()


def good_and_joins(db):
    good(db)
    joins(db)


def same(db):
    db.each(ORDERS, [7] * 30)


def inserts(db):
    for i in range(30):
        db.run(INSERT, i, "note %d" % i)
    db.end()


def executemany(db):
    db.many(INSERT, [(i, "note %d" % i) for i in range(30)])
    db.end()


def multirow(db):
    for _ in range(2):
        rows = [(i, "note %d" % i) for i in range(30)]
        values = ", ".join(["(%s, %s)"] * len(rows))
        db.run("INSERT INTO events (user_id, note) VALUES " + values, *[value for row in rows for value in row])
        db.run("INSERT INTO events (user_id, note) SELECT unnest(%s::int[]), 'note'", [row[0] for row in rows])
    db.end()


# What another client does at the same time: requests of one query each, some
# of a page, some by key, in no relation to each other
def requests(db):
    random = Random(id(db))
    for i in range(200):
        if random.random() < 0.25:
            db.rows(PAGE, random.randrange(100))
        else:
            db.rows(ORDERS, 1 + random.randrange(200))
        db.end()


def connect(what):
    return (Psycopg2 if what["style"] == "literals" else Psycopg3)(what)


def do(what):
    db = connect(what)
    try:
        globals()[what["name"]](db)
    finally:
        db.close()


# Several clients at once: what["clients"] is a list of the above
def together(what):
    failed = []
    barrier = threading.Barrier(len(what["clients"]))

    def client(each):
        try:
            db = connect(each)
            barrier.wait(30)
            for _ in range(each.get("times", 1)):
                globals()[each["name"]](db)
            db.close()
        except Exception as error:
            barrier.abort()
            failed.append(repr(error))

    threads = [threading.Thread(target=client, args=(each,)) for each in what["clients"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError("; ".join(failed))


for line in iter(sys.stdin.readline, ""):
    what = json.loads(line)
    try:
        (together if what["name"] == "together" else do)(what)
        print("done", flush=True)
    except Exception as error:
        print(repr(error).replace("\n", " "), flush=True)
