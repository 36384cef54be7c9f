// Each scenario throws once; what was thrown is kept as text.
import { Account, Ledger, Savings, interest } from './ledger.js';
import { announce, balances, eventually, ledgerLines, nightly, notify, overdue } from './tasks.js';

const report = [];

Error.stackTraceLimit = 50;

function keep(scenario, error) {
  const causes = [];
  for (let cause = error.cause; cause; cause = cause.cause) {
    causes.push(cause.stack);
  }
  report.push({ scenario, name: error.name, message: error.message, stack: error.stack, causes });
}

function attempt(scenario, action) {
  try {
    action();
  } catch (error) {
    keep(scenario, error);
  }
}

async function attemptLater(scenario, action) {
  try {
    await action();
  } catch (error) {
    keep(scenario, error);
  }
}

function outer(amount) {
  function middle(rest) {
    const innermost = (left) => {
      if (left < 0) {
        throw new RangeError('nothing left: ' + left);
      }
      return middle(left - 1);
    };
    return rest > 1 ? innermost(rest - 1) : innermost(rest);
  }
  return middle(amount);
}

function Teller(name) {
  this.name = name;
}

Teller.prototype.greet = function (customer) {
  return `${this.name} greets ${customer.title.short}`;
};

const printers = {
  width: 12,
  plain(text) {
    return text.padStart(this.width).missing.length;
  },
  framed: function (text) {
    return printers.plain(`[${text}]`);
  },
  centred: (text) => printers.framed(text.trim()),
};

function price(strings, ...values) {
  return strings[0] + values.map((value) => value.toFixed(2)).join();
}

attempt('nested functions', () => outer(2));
attempt('constructor', () => new Account('nobody'));
attempt('static method', () => Account.open('nobody'));
attempt('method', () => new Account('ann').withdraw(5));
attempt('inherited method', () => new Savings('bob', 3).withdraw(9));
attempt('getter', () => printers.plain(new Account('ann').lastEntry));
attempt('setter', () => {
  new Account('ann').limit = -1;
});
attempt('private method', () => new Ledger([]).audit());
attempt('field', () => new Ledger([]).onClose('report'));
attempt('object methods', () => printers.centred(' x '));
attempt('prototype', () => new Teller('Tim').greet({}));
attempt('callback', () => new Ledger([3, 1, 2]).sorted());
attempt('callbacks in callbacks', () => {
  [1, 2].forEach(function each(number) {
    ['a', 'b'].map((letter) => letter.repeat(number - 3));
  });
});
attempt('tagged template', () => price`total ${'12'}`);
attempt('default parameter', () => interest(100));
attempt('destructuring', () => {
  const close = ({ account: { owner } }) => owner;
  return report.length ? close({}) : close({ account: {} });
});
attempt('generator', () => {
  let sum = 0;
  for (const line of ledgerLines([1, null])) {
    sum += line;
  }
});
attempt('beyond ASCII', () => {
  const größe = report.concat('😀😀'); const overview = () => größe.länge['😀'].wert;
  return größe.länge ? overview() : [overview(), größe];
});
attempt('cause', () => {
  try {
    new Account('ann').withdraw(7);
  } catch (cause) {
    throw new Error('could not pay', { cause });
  }
});
attempt('immediately', () => {
  (function () {
    this.parsed = ((text) => JSON.parse(text, (key) => this[key]))('{' + this.scenario);
  }).call(report[0]);
});

const waiting = [
  attemptLater('async function', () => nightly('ann')),
  attemptLater('async arrow', () => balances(['ann', 'bob'])),
  attemptLater('async generator', () => overdue([1, 2, 3])),
  attemptLater('timer', () => eventually(() => new Account('nobody'))),
  attemptLater('promise callback', () => notify('bob')),
  attemptLater('async method', () => announce('eve')),
];

Promise.all(waiting).then(() => {
  const text = JSON.stringify(report);
  if (typeof document === 'undefined') {
    console.log(text);
  } else {
    document.body.textContent = text;
  }
});
