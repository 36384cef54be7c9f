import { Account } from './ledger.js';

async function load(owner) {
  await null;
  return new Account(owner).withdraw(1);
}

export async function nightly(owner) {
  const loaded = await load(owner);
  return loaded.entries;
}

export const balances = async (owners) => {
  const loading = owners.map(async (owner) => {
    const account = await load(owner);
    return account.entries;
  });
  return Promise.all(loading);
};

export function* ledgerLines(lines) {
  for (const line of lines) {
    yield line.text.length;
  }
}

async function* numbered(numbers) {
  for (const number of numbers) {
    await null;
    if (number === 2) {
      throw new Error('number ' + number);
    }
    yield number;
  }
}

export async function overdue(numbers) {
  const found = [];
  for await (const number of numbered(numbers)) {
    found.push(number);
  }
  return found;
}

export function eventually(action) {
  return new Promise((resolve, reject) => {
    setTimeout(function onTimeout() {
      try {
        resolve(action());
      } catch (error) {
        reject(error);
      }
    }, 1);
  });
}

export function notify(owner) {
  return Promise.resolve(owner)
    .then(function address(name) {
      return { to: name };
    })
    .then((letter) => letter.lines.join());
}

class Herald {
  constructor(name) {
    this.name = name;
  }

  async cry(news) {
    await null;
    return this.shout(news.text.toUpperCase());
  }

  shout(text) {
    return `${this.name}: ${text}`;
  }
}

export async function announce(name) {
  const herald = new Herald(name);
  return herald.cry({});
}
