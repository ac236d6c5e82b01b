-- Of two simultaneous registrations of one name, one has to fail, which only the database can decide.
ALTER TABLE `user` ADD UNIQUE INDEX `tandem_user_name` (`user_name`)
