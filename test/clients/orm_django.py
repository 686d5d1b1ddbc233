# Relations of a shop by Django's ORM: loaded one by one in a loop, and eagerly.
# Told what to do by lines of JSON, see Clients.pm.
import json
import os
import sys

import django
from django.conf import settings
from django.core.paginator import Paginator

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"],
                           "USER": os.environ["PGUSER"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
                           "OPTIONS": {}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True)
django.setup()

from django.db import connection, models, transaction  # noqa: E402 (needs the settings)


class Country(models.Model):
    name = models.TextField()

    class Meta:
        app_label, db_table, managed = "shop", "countries", False


class User(models.Model):
    name = models.TextField()
    country = models.ForeignKey(Country, models.DO_NOTHING)

    class Meta:
        app_label, db_table, managed = "shop", "users", False


class Order(models.Model):
    total_cents = models.IntegerField()
    user = models.ForeignKey(User, models.DO_NOTHING, related_name="orders")

    class Meta:
        app_label, db_table, managed = "shop", "orders", False


class Event(models.Model):
    note = models.TextField()

    class Meta:
        app_label, db_table, managed = "shop", "events", False


def page(entity, n, size):
    return entity.objects.order_by("id")[n * size:(n + 1) * size]


def lazy_many():
    for n in range(3):
        for user in page(User, n, 25):
            len(user.orders.all())


def lazy_one():
    for order in page(Order, 0, 40):
        order.user.name


def lazy_two():
    for user in page(User, 0, 40):
        len(user.orders.all())
        user.country.name


def lazy_count():
    for n in range(3):
        for user in page(User, n, 25):
            user.orders.count()


def lazy_paging():
    for n in range(1, 6):
        for user in Paginator(User.objects.order_by("id"), 20).page(n):
            len(user.orders.all())


def one_parent():
    for order in Order.objects.filter(user_id=200):
        order.user.name


def eager_join():
    for n in range(15):
        for user in page(User, n, 10).select_related("country"):
            user.country.name


def eager_in():
    for n in range(15):
        for user in page(User, n, 10).prefetch_related("orders", "country"):
            len(user.orders.all())


def eager_one():
    for n in range(15):
        for order in page(Order, n, 20).select_related("user"):
            order.user.name


def grouped_count():
    for n in range(15):
        ids = [user.id for user in page(User, n, 10)]
        list(Order.objects.filter(user_id__in=ids).values("user_id").annotate(number=models.Count("id")))


def eager_paging():
    for n in range(1, 16):
        for user in Paginator(User.objects.order_by("id").prefetch_related("orders"), 10).page(n):
            len(user.orders.all())


def catalog():
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            connection.introspection.get_table_description(cursor, table)
            connection.introspection.get_relations(cursor, table)
            connection.introspection.get_constraints(cursor, table)


def single_inserts():
    for i in range(30):
        Event.objects.create(note="note %d" % i)


def commit_each():
    for i in range(30):
        with transaction.atomic():
            Event.objects.create(note="note %d" % i)


def bulk_inserts():
    for _ in range(2):
        Event.objects.bulk_create([Event(note="note %d" % i) for i in range(30)])


for line in iter(sys.stdin.readline, ""):
    what = json.loads(line)
    connection.settings_dict["OPTIONS"]["application_name"] = what["application_name"]
    try:
        globals()[what["name"]]()
        connection.close()
        print("done", flush=True)
    except Exception as error:
        connection.close()
        print(repr(error).replace("\n", " "), flush=True)
