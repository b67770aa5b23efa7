# Makes the data directory once, then runs the server with the accounts that were asked for.
set -eu
data=/var/lib/mysql
chown mysql "$data"
if [ ! -d "$data/mysql" ]; then
    mysqld --no-defaults --initialize-insecure --user=mysql --datadir="$data" --secure-file-priv=
fi
init=/tmp/init.sql
# Where fs.protected_regular is on, root may not write what mysql owns in /tmp.
rm -f "$init"
umask 077
{
    if [ -n "${MYSQL_ROOT_PASSWORD-}" ]; then
        cat <<SQL
CREATE USER IF NOT EXISTS 'root'@'${MYSQL_ROOT_HOST-%}' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
ALTER USER 'root'@'${MYSQL_ROOT_HOST-%}' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
ALTER USER 'root'@'localhost' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
GRANT ALL ON *.* TO 'root'@'${MYSQL_ROOT_HOST-%}' WITH GRANT OPTION;
SQL
    fi
    if [ -n "${MYSQL_DATABASE-}" ]; then
        echo "CREATE DATABASE IF NOT EXISTS \`$MYSQL_DATABASE\`;"
    fi
    if [ -n "${MYSQL_USER-}" ]; then
        cat <<SQL
CREATE USER IF NOT EXISTS '$MYSQL_USER'@'%' IDENTIFIED BY '$MYSQL_PASSWORD';
ALTER USER '$MYSQL_USER'@'%' IDENTIFIED BY '$MYSQL_PASSWORD';
GRANT ALL PRIVILEGES ON \`$MYSQL_DATABASE\`.* TO '$MYSQL_USER'@'%';
SQL
    fi
} >"$init"
chown mysql "$init"
exec mysqld --no-defaults --user=mysql --datadir="$data" --init-file="$init" --mysqlx=OFF \
    --performance-schema=OFF --secure-file-priv= --socket=/tmp/mysqld.sock "$@"
