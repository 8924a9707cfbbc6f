-- The users of the stack (compose/lib/servers.sh makes the same ones): the agent's has what it needs and no more,
-- `app` is the team's own application.
CREATE USER plumbline@'%' IDENTIFIED BY 'plumbline';
GRANT SELECT ON shop.* TO plumbline@'%';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO plumbline@'%';
CREATE USER app@'%' IDENTIFIED BY 'app';
GRANT ALL PRIVILEGES ON shop.* TO app@'%';
