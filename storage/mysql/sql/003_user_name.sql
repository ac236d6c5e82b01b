-- Of two simultaneous registrations of one name one must lose, and only the database can tell.
ALTER TABLE `user` ADD UNIQUE INDEX `tandem_user_name` (`user_name`)
