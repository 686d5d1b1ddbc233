// Loops over a page of users, and the good forms of them, by node's driver
// "pg": extended protocol, without and with named statements.  Told what to do
// by lines of JSON, see Clients.pm.
'use strict';
const { Client } = require('pg');
const readline = require('readline');

const PAGE = 'SELECT id, name FROM users WHERE id > $1 ORDER BY id LIMIT 25';
const ORDERS = 'SELECT id, total_cents FROM orders WHERE user_id = $1';
const INSERT = 'INSERT INTO events (user_id, note) VALUES ($1, $2)';

// a name for each text
const names = new Map();
const name = (text) => names.get(text) || names.set(text, `statement ${names.size}`).get(text);

async function connect(what) {
  const client = new Client({ application_name: what.application_name });
  await client.connect();
  const query = (text, ...values) =>
    client.query(what.style === 'named' ? { name: name(text), text, values } : { text, values });
  return { query, end: () => client.end() };
}

const cases = {
  async loop(db) {
    for (let page = 0; page < 3; page++) {
      const users = await db.query(PAGE, page * 25);
      for (const user of users.rows) await db.query(ORDERS, user.id);
    }
  },
  async good(db) {
    for (let page = 0; page < 3; page++) {
      const users = await db.query(PAGE, page * 25);
      await db.query('SELECT user_id, id, total_cents FROM orders WHERE user_id = ANY ($1)', users.rows.map((user) => user.id));
    }
  },
  async joins(db) {
    for (let page = 0; page < 15; page++)
      await db.query('SELECT u.id, u.name, o.id, o.total_cents FROM users u LEFT JOIN orders o ON o.user_id = u.id' +
        ' WHERE u.id BETWEEN $1 AND $2 ORDER BY u.id', page * 10, page * 10 + 9);
  },
  async good_and_joins(db) {
    await cases.good(db);
    await cases.joins(db);
  },
  async same(db) {
    for (let i = 0; i < 30; i++) await db.query(ORDERS, 7);
  },
  async inserts(db) {
    for (let i = 0; i < 30; i++) await db.query(INSERT, i, `note ${i}`);
  },
  async multirow(db) {
    for (let n = 0; n < 2; n++) {
      const rows = Array.from({ length: 30 }, (_, i) => [i, `note ${i}`]);
      await db.query('INSERT INTO events (user_id, note) VALUES ' + rows.map((_, i) => `($${2 * i + 1}, $${2 * i + 2})`).join(', '),
        ...rows.flat());
      await db.query("INSERT INTO events (user_id, note) SELECT unnest($1::int[]), 'note'", rows.map((row) => row[0]));
    }
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const what = JSON.parse(line);
    let answer = 'done';
    const db = await connect(what);
    try {
      await cases[what.name](db);
    } catch (error) {
      answer = String(error).replace(/\n/g, ' ');
    }
    await db.end();
    console.log(answer);
  }
}
main();
