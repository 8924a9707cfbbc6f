# Writes SQL for one long-lived client: what a small shop does all day. Ten ticks a second; the server's clock paces them,
# so that neither this program nor the client spins.
#   -v seed=N      another N, another day
#   -v rate=N      about so many changed rows a second
#   -v seconds=N   0: for ever

function upto(n) { return 1 + int(rand() * n) }
function say(sql) { print sql ";" }
function product(n, prefix) {
    n = upto(5000)
    prefix = n % 4 == 0 ? "BK" : n % 4 == 1 ? "TOY" : n % 4 == 2 ? "Gar" : "el"
    return sprintf("%s-%05d", prefix, n)
}
function money() { return sprintf("%.2f", rand() * 900 + 1) }
function hex(  i, text) { text = ""; for (i = 0; i < 8; i++) text = text sprintf("%08x", int(rand() * 4294967295)); return text }
function warehouse() { return rand() < 0.5 ? "BER" : "LYS" }

# An order over four tables in one transaction.
function order(  lines, line, items) {
    say("START TRANSACTION")
    say("INSERT INTO orders (customer_id, total, placed_at) VALUES (" upto(20000) ", " money() ", SYSDATE(6))")
    say("SET @placed = LAST_INSERT_ID()")
    lines = upto(4)
    items = ""
    for (line = 1; line <= lines; line++) items = items (line > 1 ? ", " : "") "(@placed, " line ", '" product() "', " upto(9) ", " money() ")"
    say("INSERT INTO `order items` (order_id, line, sku, quantity, unit_price) VALUES " items)
    say("UPDATE stock SET quantity = quantity - 1, reserved = reserved + 1 WHERE warehouse = '" warehouse() "' AND sku = '" product() "'")
    say("INSERT INTO audit (at, actor, action, detail) VALUES (SYSDATE(6), 'web', 'order', CONCAT('order ', @placed))")
    say("COMMIT")
    return lines + 3
}
function payment() {
    say("START TRANSACTION")
    say("INSERT INTO payments (id, order_id, method, amount, paid_at, reference) VALUES (UUID_TO_BIN(UUID()), IFNULL(@placed, 1), " upto(4) ", " money() ", SYSDATE(6), " (rand() < 0.2 ? "NULL" : "'RF" upto(999999999) "'") ")")
    say("UPDATE orders SET status = 'paid' WHERE id = IFNULL(@placed, 1)")
    say("COMMIT")
    return 2
}
function shipping(  first) {
    first = upto(60000)
    say("UPDATE orders SET status = IF(status = 'shipped', 'returned', 'shipped'), shipped_on = CURDATE() WHERE id BETWEEN " first " AND " first + 3)
    return 4
}
function cancelled_order(  id) {
    id = upto(60000)
    say("START TRANSACTION")
    say("DELETE FROM `order items` WHERE order_id = " id)
    say("DELETE FROM orders WHERE id = " id)
    say("COMMIT")
    return 3
}
function new_customers(  i, rows) {
    rows = ""
    for (i = 0; i < 3; i++) rows = rows (i ? ", " : "") "(CONCAT('new', UUID_SHORT(), '@example.com'), 'Zoë Äpfel " upto(999) "', 'Kraków?', 'PL', SYSDATE(3))"
    say("INSERT INTO customers (email, name, city, country, created_at) VALUES " rows)
    return 3
}
function customer_leaves() { say("DELETE FROM customers WHERE id > 20000 ORDER BY id LIMIT 1"); return 1 }
function customer_changes() {
    say("UPDATE customers SET credit_limit = " money() ", newsletter = 1 - newsletter, notes = " (rand() < 0.3 ? "NULL" : "'seen " upto(9999) " 😀'") " WHERE id = " upto(20000))
    return 1
}
function price() {
    say("UPDATE products SET price = " money() ", labels = " int(rand() * 32) ", attributes = JSON_SET(COALESCE(attributes, '{}'), '$.size', " upto(50) ") WHERE sku = '" product() "'")
    return 1
}
function restock() {
    say("INSERT INTO stock (warehouse, sku, quantity, counted_on) VALUES ('" warehouse() "', '" product() "', 100, CURDATE()), ('HAM', '" product() "', 10, CURDATE()) AS new ON DUPLICATE KEY UPDATE quantity = stock.quantity + new.quantity, counted_on = new.counted_on")
    return 2
}
function session_seen(  token) {
    token = hex()
    say("REPLACE INTO sessions (token, customer_id, started_at, seen_at, cart) VALUES ('" token "', " upto(20000) ", SYSDATE(3), SYSDATE(3), JSON_ARRAY(" upto(9) "))")
    say("REPLACE INTO sessions (token, customer_id, started_at, seen_at, cart) VALUES ('" token "', NULL, SYSDATE(3), SYSDATE(3), NULL)")
    return 3
}
function sessions_end() { say("DELETE FROM sessions WHERE token >= '" hex() "' ORDER BY token LIMIT 2"); return 2 }
# Changes of keys: of a text, of half a pair, of letter case only, of a decimal.
function keys_change(  band, name) {
    say("UPDATE sessions SET token = '" hex() "' WHERE token >= '" hex() "' ORDER BY token LIMIT 1")
    band = upto(200) * 12.5
    say("UPDATE price_bands SET from_amount = " band " + " upto(12) " WHERE from_amount BETWEEN " band " AND " band + 12.25)
    name = product()
    say("UPDATE stock SET sku = IF(sku = BINARY UPPER(sku), LOWER(sku), UPPER(sku)) WHERE warehouse = '" warehouse() "' AND sku = '" name "'")
    return 3
}
function day_closes() {
    say("INSERT INTO daily_sales (day, store, orders, revenue) VALUES (CURDATE(), " upto(10) ", 1, " money() ") AS new ON DUPLICATE KEY UPDATE orders = daily_sales.orders + 1, revenue = daily_sales.revenue + new.revenue")
    return 1
}
# Rows without a key, two of them equal.
function noted() {
    say("INSERT INTO audit (at, actor, action, detail) VALUES (CURDATE(), 'system', 'tick', NULL), (CURDATE(), 'system', 'tick', NULL), (SYSDATE(6), 'ben', 'login', 'page " upto(99) "')")
    return 3
}
function measured() {
    say("UPDATE instruments SET exact = " money() ", single = RAND(), `double` = RAND() * 1e6, bits = " int(rand() * 1024) ", content = RANDOM_BYTES(" upto(64) "), features = " int(rand() * 16) ", at_time6 = CURTIME(6), moment6 = SYSDATE(6), document = JSON_OBJECT('at', " upto(999) ") WHERE id = " upto(2003))
    if (rand() < 0.3) say("INSERT INTO instruments (small, text_short, kind, local_time3) VALUES (" upto(99) ", 'added', 'größe', SYSDATE(3))")
    return 1
}
function thought_better() {
    say("START TRANSACTION")
    say("UPDATE customers SET credit_limit = 0 WHERE id = " upto(20000))
    say("INSERT INTO audit (at, actor, action) VALUES (SYSDATE(6), 'anna', 'never')")
    say("ROLLBACK")
    say("START TRANSACTION")
    say("UPDATE products SET vat_percent = IF(vat_percent = 19, 7, 19) WHERE sku = '" product() "'")
    say("SAVEPOINT half")
    say("DELETE FROM products WHERE sku = '" product() "'")
    say("ROLLBACK TO SAVEPOINT half")
    say("COMMIT")
    return 1
}

function one_act(  dice) {
    dice = rand()
    if (dice < 0.22) return order()
    if (dice < 0.38) return payment()
    if (dice < 0.46) return shipping()
    if (dice < 0.49) return cancelled_order()
    if (dice < 0.54) return new_customers()
    if (dice < 0.56) return customer_leaves()
    if (dice < 0.66) return customer_changes()
    if (dice < 0.73) return price()
    if (dice < 0.78) return restock()
    if (dice < 0.84) return session_seen()
    if (dice < 0.87) return sessions_end()
    if (dice < 0.89) return keys_change()
    if (dice < 0.92) return day_closes()
    if (dice < 0.95) return noted()
    if (dice < 0.98) return measured()
    return thought_better()
}

BEGIN {
    CONVFMT = "%.12g"
    srand(seed)
    say("SET @began = UNIX_TIMESTAMP(SYSDATE(6))")
    done = 0
    for (tick = 1; seconds == 0 || tick <= seconds * 10; tick++) {
        while (done < rate * tick / 10) done += one_act()
        say("DO SLEEP(GREATEST(0, @began + " tick / 10 " - UNIX_TIMESTAMP(SYSDATE(6))))")
        fflush()
    }
}
