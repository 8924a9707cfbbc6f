# Traffic on the sample: mixed statements through one client, about a hundred changes a second. Sourced by `stack`.

traffic() {
  local seconds=0
  if [ "${1:-}" = --seconds ]; then
    seconds=${2:?a number of seconds}
  fi
  [ -s "$state/env" ] || die "nothing runs here: \`compose/stack demo\` first"
  # shellcheck disable=SC1091
  source "$state/env"
  statements "$seconds" | "$bin/mysql" --no-defaults --force -h127.0.0.1 -P"$MYSQL_PORT" -uapp -papp shop 2>&1 | grep -v 'Using a password' || true
}


statements() { # SECONDS (0: for ever)
  local until=$((SECONDS + $1)) order customer
  while [ "$1" = 0 ] || [ "$SECONDS" -lt "$until" ]; do
    customer=$((1 + (RANDOM * 32768 + RANDOM) % 40000))
    order=$((1 + (RANDOM * 32768 + RANDOM) % 120000))
    case $((RANDOM % 14)) in
      0 | 1 | 2) echo "BEGIN; INSERT INTO orders (customer_id, total, status) VALUES ($customer, $((RANDOM % 500)).$((10 + RANDOM % 90)), 'new'); INSERT INTO \`order items\` SELECT LAST_INSERT_ID(), n, CONCAT('SKU-', 1 + (n * $RANDOM) % 3000), n FROM (SELECT 1 n UNION SELECT 2 UNION SELECT 3) x; COMMIT;" ;;
      3 | 4) echo "UPDATE orders SET status = ELT(1 + $RANDOM % 4, 'new', 'paid', 'sent', 'back'), total = total + 0.01 WHERE id BETWEEN $order AND $((order + 5));" ;;
      5) echo "UPDATE customers SET note = CONCAT('seen ', $RANDOM, ' éü'), logins = logins + 1 WHERE id = $customer;" ;;
      6) echo "BEGIN; DELETE FROM \`order items\` WHERE order_id = $order; DELETE FROM orders WHERE id = $order; COMMIT;" ;;
      7) echo "REPLACE INTO stock (warehouse, sku, amount, counted_on) VALUES ($((1 + RANDOM % 5)), 'SKU-$((1 + RANDOM % 3000))', $RANDOM, '2026-05-01');" ;;
      8) echo "INSERT INTO stock (warehouse, sku, amount, counted_on) VALUES ($((1 + RANDOM % 5)), 'SKU-$((1 + RANDOM % 3000))', 1, '2026-05-02') ON DUPLICATE KEY UPDATE amount = amount + 1;" ;;
      9) echo "INSERT INTO sessions VALUES (UUID_TO_BIN(UUID()), $customer, RANDOM_BYTES(20), NOW()); DELETE FROM sessions ORDER BY id LIMIT 1;" ;;
      10) echo "INSERT INTO audit (at, who, what) VALUES (NOW(6), 'u$((RANDOM % 9))', 'did $((RANDOM % 99))');" ;;
      11) echo "UPDATE products SET sku = CONCAT('SKU-', 100000 + $RANDOM) WHERE sku = 'SKU-$((3001 + RANDOM % 900))'; UPDATE products SET price = price * 1.01 WHERE sku = 'SKU-$((1 + RANDOM % 3000))';" ;;
      12) echo "BEGIN; UPDATE customers SET active = 1 - active WHERE id = $customer; ROLLBACK;" ;;
      13) echo "INSERT INTO payments (order_id, method, amount, paid_at, raw) VALUES ($order, 'card', $((RANDOM % 300)).5, NOW(6), JSON_OBJECT('n', $RANDOM, 'p', 1.50));" ;;
    esac
    sleep 0.02
  done
}
