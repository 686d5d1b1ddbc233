// Relations of a shop by TypeORM: loaded one by one in a loop, and eagerly.
// Told what to do by lines of JSON, see Clients.pm.
'use strict';
const { DataSource, EntitySchema, In } = require('typeorm');
const readline = require('readline');

const id = { type: 'int', primary: true, generated: true };
const Country = new EntitySchema({ name: 'Country', tableName: 'countries', columns: { id, name: { type: 'text' } } });
const User = new EntitySchema({
  name: 'User', tableName: 'users', columns: { id, name: { type: 'text' } },
  relations: {
    orders: { type: 'one-to-many', target: 'Order', inverseSide: 'user', lazy: true },
    country: { type: 'many-to-one', target: 'Country', joinColumn: { name: 'country_id' }, lazy: true },
  },
});
const Order = new EntitySchema({
  name: 'Order', tableName: 'orders', columns: { id, total_cents: { type: 'int' } },
  relations: { user: { type: 'many-to-one', target: 'User', inverseSide: 'orders', joinColumn: { name: 'user_id' }, lazy: true } },
});
const Event = new EntitySchema({ name: 'Event', tableName: 'events', columns: { id, note: { type: 'text' } } });

async function connect(what) {
  const db = new DataSource({
    type: 'postgres', host: process.env.PGHOST, port: Number(process.env.PGPORT), username: process.env.PGUSER,
    database: process.env.PGDATABASE, applicationName: what.application_name,
    relationLoadStrategy: what.name === 'eager_in' ? 'query' : 'join',
    entities: [Country, User, Order, Event],
  });
  await db.initialize();
  return { db, users: db.getRepository('User'), orders: db.getRepository('Order'), events: db.getRepository('Event') };
}

const page = (n, size) => ({ order: { id: 'ASC' }, take: size, skip: n * size });

const cases = {
  async lazy_many({ users }) {
    for (let n = 0; n < 3; n++)
      for (const user of await users.find(page(n, 25))) await user.orders;
  },
  async lazy_one({ orders }) {
    for (const order of await orders.find(page(0, 40))) await order.user;
  },
  async lazy_two({ users }) {
    for (const user of await users.find(page(0, 40))) {
      await user.orders;
      await user.country;
    }
  },
  async lazy_count({ users, orders }) {
    for (let n = 0; n < 3; n++)
      for (const user of await users.find(page(n, 25))) await orders.countBy({ user: { id: user.id } });
  },
  async lazy_paging({ users }) {
    for (let n = 0; n < 5; n++) {
      const [found] = await users.findAndCount(page(n, 20));
      for (const user of found) await user.orders;
    }
  },
  async one_parent({ orders }) {
    for (const order of await orders.find({ where: { user: { id: 200 } } })) await order.user;
  },
  async eager_join({ users }) {
    for (let n = 0; n < 15; n++) await users.find({ ...page(n, 10), relations: { orders: true, country: true } });
  },
  async eager_in({ users }) {
    for (let n = 0; n < 15; n++) await users.find({ ...page(n, 10), relations: { orders: true } });
  },
  async eager_one({ orders }) {
    for (let n = 0; n < 15; n++) await orders.find({ ...page(n, 20), relations: { user: true } });
  },
  async grouped_count({ users, orders }) {
    for (let n = 0; n < 15; n++) {
      const found = await users.find(page(n, 10));
      await orders.createQueryBuilder('o').select('o.user_id', 'user_id').addSelect('count(*)', 'number')
        .where({ user: { id: In(found.map((user) => user.id)) } }).groupBy('o.user_id').getRawMany();
    }
  },
  async eager_paging({ users }) {
    for (let n = 0; n < 15; n++) await users.findAndCount({ ...page(n, 10), relations: { orders: true } });
  },
  async catalog({ db }) {
    const runner = db.createQueryRunner();
    // information_schema once for each column that is an array
    await runner.getTables(Array.from({ length: 20 }, (_, i) => `public.extra_${i + 1}`));
    for (let i = 1; i <= 20; i++) await runner.hasTable(`extra_${i}`);
    await runner.release();
  },
  async single_inserts({ db }) {
    await db.transaction(async (manager) => {
      for (let i = 0; i < 30; i++) await manager.save('Event', { note: `note ${i}` });
    });
  },
  async commit_each({ events }) {
    for (let i = 0; i < 30; i++) await events.save({ note: `note ${i}` });
  },
  async bulk_inserts({ events }) {
    for (let n = 0; n < 2; n++) await events.save(Array.from({ length: 30 }, (_, i) => ({ note: `note ${i}` })));
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const what = JSON.parse(line);
    let answer = 'done';
    const shop = await connect(what);
    try {
      await cases[what.name](shop);
    } catch (error) {
      answer = String(error).replace(/\n/g, ' ');
    }
    await shop.db.destroy();
    console.log(answer);
  }
}
main();
