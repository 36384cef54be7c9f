export class Account {
  #limit = 0;

  constructor(owner) {
    this.owner = owner;
    this.entries = [];
    if (owner === 'nobody') {
      throw new RangeError('an account is somebody’s');
    }
  }

  static open(owner) {
    return new Account(owner);
  }

  withdraw(amount) {
    this.check(amount);
    this.entries.push(-amount);
  }

  check(amount) {
    if (amount > this.#limit) {
      throw new RangeError(`${this.owner} has no ${amount}`);
    }
  }

  get lastEntry() {
    return this.entries[this.entries.length - 1].text;
  }

  set limit(value) {
    if (value < 0) {
      throw new TypeError('limit ' + value);
    }
    this.#limit = value;
  }
}

export class Savings extends Account {
  constructor(owner, notice) {
    super(owner);
    this.notice = notice;
  }

  withdraw(amount) {
    if (amount < this.notice) {
      return;
    }
    super.withdraw(amount - this.notice);
  }
}

const compare = (one, other) => {
  if (one === 1) {
    throw new Error('can not compare with ' + other);
  }
  return one - other;
};

export class Ledger {
  constructor(lines) {
    this.lines = lines;
  }

  onClose = (listener) => {
    listener.closed(this);
  };

  #sign(seal) {
    if (!this.lines.length) {
      throw new Error('unsigned ' + seal);
    }
  }

  audit() {
    return this.#sign('audit');
  }

  sorted() {
    return this.lines.slice().sort(compare);
  }
}

function rate(year) {
  return RATES[year].percent;
}

const RATES = { 1999: { percent: 3 } };

export function interest(amount, percent = rate(2001)) {
  return (amount * percent) / 100;
}
