-- gin-chat-demo asks for a nick name at registration and then has no column for it.
ALTER TABLE `user` ADD COLUMN `nick_name` varchar(255) NULL
