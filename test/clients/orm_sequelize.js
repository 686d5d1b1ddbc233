// Relations of a shop by Sequelize: loaded one by one in a loop, and eagerly.
// Told what to do by lines of JSON, see Clients.pm.
'use strict';
const { Sequelize, DataTypes } = require('sequelize');
const readline = require('readline');

function connect(what) {
  const db = new Sequelize(process.env.PGDATABASE, process.env.PGUSER, '', {
    host: process.env.PGHOST, port: process.env.PGPORT, dialect: 'postgres', logging: false,
    dialectOptions: { application_name: what.application_name },
    // findAndCountAll asks for the rows and their number over two connections at once, where the pool has
    // them, and the loop after it may then run over another connection than its page did
    pool: { max: what.connections || 1 },
    define: { timestamps: false, underscored: true },
  });
  const Country = db.define('country', { name: DataTypes.TEXT }, { tableName: 'countries' });
  const User = db.define('user', { name: DataTypes.TEXT }, { tableName: 'users' });
  const Order = db.define('order', { total_cents: DataTypes.INTEGER }, { tableName: 'orders' });
  const Event = db.define('event', { note: DataTypes.TEXT }, { tableName: 'events' });
  User.hasMany(Order);
  Order.belongsTo(User);
  User.belongsTo(Country);
  return { db, Country, User, Order, Event };
}

const page = (n, size) => ({ order: ['id'], limit: size, offset: n * size });

const cases = {
  async lazy_many({ User }) {
    for (let n = 0; n < 3; n++)
      for (const user of await User.findAll(page(n, 25))) await user.getOrders();
  },
  async lazy_one({ Order }) {
    for (const order of await Order.findAll(page(0, 40))) await order.getUser();
  },
  async lazy_two({ User }) {
    for (const user of await User.findAll(page(0, 40))) {
      await user.getOrders();
      await user.getCountry();
    }
  },
  async lazy_count({ User }) {
    for (let n = 0; n < 3; n++)
      for (const user of await User.findAll(page(n, 25))) await user.countOrders();
  },
  async lazy_paging({ User }) {
    for (let n = 0; n < 5; n++)
      for (const user of (await User.findAndCountAll(page(n, 20))).rows) await user.getOrders();
  },
  async one_parent({ Order }) {
    for (const order of await Order.findAll({ where: { user_id: 200 }, order: ['id'] })) await order.getUser();
  },
  async eager_join({ User, Order, Country }) {
    for (let n = 0; n < 15; n++) await User.findAll({ ...page(n, 10), include: [Order, Country] });
  },
  async eager_in({ User, Order }) {
    for (let n = 0; n < 15; n++) await User.findAll({ ...page(n, 10), include: [{ model: Order, separate: true }] });
  },
  async eager_one({ Order, User }) {
    for (let n = 0; n < 15; n++) await Order.findAll({ ...page(n, 20), include: User });
  },
  async grouped_count({ db, User, Order }) {
    for (let n = 0; n < 15; n++) {
      const users = await User.findAll(page(n, 10));
      await Order.findAll({ attributes: ['user_id', [db.fn('COUNT', db.col('id')), 'number']],
        where: { user_id: users.map((user) => user.id) }, group: ['user_id'] });
    }
  },
  async eager_paging({ User, Order }) {
    for (let n = 0; n < 15; n++) await User.findAndCountAll({ ...page(n, 10), include: Order, distinct: true });
  },
  async catalog({ db }) {
    await db.authenticate();
    for (const table of await db.getQueryInterface().showAllTables()) {
      const name = table.tableName || table;
      await db.getQueryInterface().describeTable(name);
      await db.getQueryInterface().showIndex(name);
    }
  },
  async single_inserts({ Event }) {
    for (let i = 0; i < 30; i++) await Event.create({ note: `note ${i}` });
  },
  async commit_each({ db, Event }) {
    for (let i = 0; i < 30; i++)
      await db.transaction((transaction) => Event.create({ note: `note ${i}` }, { transaction }));
  },
  async bulk_inserts({ Event }) {
    for (let n = 0; n < 2; n++) await Event.bulkCreate(Array.from({ length: 30 }, (_, i) => ({ note: `note ${i}` })));
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const what = JSON.parse(line);
    let answer = 'done';
    const shop = connect(what);
    try {
      await cases[what.name](shop);
    } catch (error) {
      answer = String(error).replace(/\n/g, ' ');
    }
    await shop.db.close();
    console.log(answer);
  }
}
main();
