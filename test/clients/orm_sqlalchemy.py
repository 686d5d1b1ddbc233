# Relations of a shop by SQLAlchemy 1.4 or 2: loaded one by one in a loop, and
# eagerly.  Told what to do by lines of JSON, see Clients.pm.
import json
import sys

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, MetaData, Text, create_engine, func, inspect, select
from sqlalchemy.orm import Session, declarative_base, joinedload, relationship, selectinload, subqueryload

Base = declarative_base()


class Country(Base):
    __tablename__ = "countries"
    id = Column(Integer, primary_key=True)
    name = Column(Text)


class User(Base):
    __tablename__ = "users"
    id = Column(Integer, primary_key=True)
    name = Column(Text)
    country_id = Column(ForeignKey("countries.id"))
    country = relationship(Country)
    orders = relationship("Order", back_populates="user")


class Order(Base):
    __tablename__ = "orders"
    id = Column(Integer, primary_key=True)
    total_cents = Column(Integer)
    user_id = Column(ForeignKey("users.id"))
    user = relationship(User, back_populates="orders")


class Event(Base):
    __tablename__ = "events"
    id = Column(BigInteger, primary_key=True)
    note = Column(Text)


def page(entity, n, size, *options):
    return select(entity).order_by(entity.id).limit(size).offset(n * size).options(*options)


def lazy_many(db):
    for n in range(3):
        for user in db.scalars(page(User, n, 25)):
            len(user.orders)


def lazy_one(db):
    for order in db.scalars(page(Order, 0, 40)):
        order.user.name


def lazy_two(db):
    for user in db.scalars(page(User, 0, 40)):
        len(user.orders)
        user.country.name


def lazy_count(db):
    for n in range(3):
        for user in db.scalars(page(User, n, 25)):
            db.scalar(select(func.count()).select_from(Order).where(Order.user_id == user.id))


def lazy_paging(db):
    for n in range(5):
        db.scalar(select(func.count()).select_from(User))
        for user in db.scalars(page(User, n, 20)):
            len(user.orders)


def one_parent(db):
    for order in db.scalars(select(Order).where(Order.user_id == 200)):
        order.user.name


def eager_join(db):
    for n in range(15):
        for user in db.scalars(page(User, n, 10, joinedload(User.orders), joinedload(User.country))).unique():
            len(user.orders)


def eager_in(db):
    for n in range(15):
        for user in db.scalars(page(User, n, 10, selectinload(User.orders), selectinload(User.country))):
            len(user.orders)


def eager_subquery(db):
    for n in range(15):
        for user in db.scalars(page(User, n, 10, subqueryload(User.orders))):
            len(user.orders)


def eager_both(db):
    eager_in(db)
    eager_subquery(db)


def eager_one(db):
    for n in range(15):
        for order in db.scalars(page(Order, n, 20, joinedload(Order.user))):
            order.user.name


def grouped_count(db):
    for n in range(15):
        ids = [user.id for user in db.scalars(page(User, n, 10))]
        db.execute(select(Order.user_id, func.count()).where(Order.user_id.in_(ids)).group_by(Order.user_id)).all()


def eager_paging(db):
    for n in range(15):
        db.scalar(select(func.count()).select_from(User))
        for user in db.scalars(page(User, n, 10, selectinload(User.orders))):
            len(user.orders)


def catalog(db):
    MetaData().reflect(db.connection())
    for table in inspect(db.connection()).get_table_names():
        inspect(db.connection()).get_indexes(table)


def single_inserts(db):
    for i in range(30):
        db.add(Event(note="note %d" % i))
        db.flush()
    db.commit()


def commit_each(db):
    for i in range(30):
        db.add(Event(note="note %d" % i))
        db.commit()


def bulk_inserts(db):
    for _ in range(2):
        db.add_all([Event(note="note %d" % i) for i in range(30)])
        db.commit()


for line in iter(sys.stdin.readline, ""):
    what = json.loads(line)
    engine = create_engine(
        "postgresql+psycopg2://", future=True, connect_args={"application_name": what["application_name"]})
    try:
        with Session(engine, future=True) as db:
            globals()[what["name"]](db)
        print("done", flush=True)
    except Exception as error:
        print(repr(error).replace("\n", " "), flush=True)
    engine.dispose()
