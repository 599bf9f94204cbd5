"""Messages of etcd's API in a package of our own."""
